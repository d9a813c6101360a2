"""One module or package per protocol; `base` is the contract, `amqp` the AMQP 1.0 engine."""
