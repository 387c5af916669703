"""What every door for orders does: models by upload, quotes, orders accepted for certain and projected from what Orders
tells, commands, announcing. It knows no door: who calls is told by the door that let them in.

The tables are those of `crm/migrations/0007_door.sql`; every door's own database has them in the same shape.
"""
