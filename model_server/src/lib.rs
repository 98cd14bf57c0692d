//! model_server.
