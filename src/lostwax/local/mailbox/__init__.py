"""The mail server of a local stack: it takes every letter, delivers none, and shows them all on a page. Loopback only,
and no part of production, where `LOSTWAX_SMTP_URL` names a real one."""
