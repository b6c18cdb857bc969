//! The SMTP dialogue, server and client, without IO.
