"""The board half of orinspect: which Jetson this is, its power modes, its sensors, its fitness for a bundle."""
