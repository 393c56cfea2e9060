//! What a user can see, through the real program: one file per behaviour.

mod install;
