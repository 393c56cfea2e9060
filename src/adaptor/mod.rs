//! adaptor
