"""Recording a real kernel's page allocations by its own trace events, and making a stream of them."""
