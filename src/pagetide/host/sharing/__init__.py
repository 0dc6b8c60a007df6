"""How one loop is shared: what parties cost, who rests until when, and what is put off."""
