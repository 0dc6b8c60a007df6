"""Why a VM's memory does not come back: what is read of it, the balance of that, and what is to be done."""
