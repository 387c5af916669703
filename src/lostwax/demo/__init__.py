"""The main job before one's eyes: robots play partners and operators through the public APIs, the audit judges."""
