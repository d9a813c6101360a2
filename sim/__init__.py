"""Simulated devices, waveforms and the embedded AMQP broker."""
