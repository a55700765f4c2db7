"""The instruments: time, memory, counts, and the machine that they were read on."""
