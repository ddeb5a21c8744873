"""The live view of a trace, and the static report: charts, tables and words about spikes and dips."""
