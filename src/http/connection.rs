//! Connections: accepting, TLS, and limits on what a client may take its time for.
