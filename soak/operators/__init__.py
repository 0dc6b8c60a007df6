"""Two hours of an operator's life: a daemon with metrics, a Prometheus with alerts, guests that come and go, faults."""
