pub const JOB_GLOBALS: &[&str] = &["console"];
