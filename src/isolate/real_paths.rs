//! Permission to read a file is asked for where the file really is.
//!
//! The runtime compares the path that is asked for with the directories that may be read, and a symbolic link in an
//! adaptor's directory would lead out of it. So each path is followed to its end first. The host opens the path that
//! was permitted, so what a run sees of a link is what the link leads to.

use std::borrow::Cow;
use std::path::Path;

use deno_runtime::deno_permissions::{
    AllowRunDescriptorParseResult, DenyRunDescriptor, EnvDescriptor, EnvDescriptorParseError, FfiDescriptor,
    ImportDescriptor, NetDescriptor, NetDescriptorParseError, PathQueryDescriptor, PathResolveError,
    PermissionDescriptorParser, ReadDescriptor, RunDescriptorParseError, RunQueryDescriptor,
    RuntimePermissionDescriptorParser, SpecialFilePathQueryDescriptor, SysDescriptor, SysDescriptorParseError,
    WriteDescriptor,
};
use sys_traits::impls::RealSys;

/// The runtime's own parser, but for paths that are asked for.
#[derive(Debug)]
pub struct RealPaths(RuntimePermissionDescriptorParser<RealSys>);

impl Default for RealPaths {
    fn default() -> Self {
        Self(RuntimePermissionDescriptorParser::new(RealSys))
    }
}

impl PermissionDescriptorParser for RealPaths {
    fn parse_path_query<'a>(&self, path: Cow<'a, Path>) -> Result<PathQueryDescriptor<'a>, PathResolveError> {
        // What is not there leads nowhere.
        match path.canonicalize() {
            Ok(real) if real != *path => {
                let asked = path.display().to_string();
                Ok(self.0.parse_path_query(Cow::Owned(real))?.with_requested(asked))
            }
            _ => self.0.parse_path_query(path),
        }
    }

    fn parse_special_file_descriptor<'a>(
        &self,
        path: PathQueryDescriptor<'a>,
    ) -> Result<SpecialFilePathQueryDescriptor<'a>, PathResolveError> {
        self.0.parse_special_file_descriptor(path)
    }

    fn parse_read_descriptor(&self, text: &str) -> Result<ReadDescriptor, PathResolveError> {
        self.0.parse_read_descriptor(text)
    }

    fn parse_write_descriptor(&self, text: &str) -> Result<WriteDescriptor, PathResolveError> {
        self.0.parse_write_descriptor(text)
    }

    fn parse_net_descriptor(&self, text: &str) -> Result<NetDescriptor, NetDescriptorParseError> {
        self.0.parse_net_descriptor(text)
    }

    fn parse_net_query(&self, text: &str) -> Result<NetDescriptor, NetDescriptorParseError> {
        self.0.parse_net_query(text)
    }

    fn parse_import_descriptor(&self, text: &str) -> Result<ImportDescriptor, NetDescriptorParseError> {
        self.0.parse_import_descriptor(text)
    }

    fn parse_env_descriptor(&self, text: &str) -> Result<EnvDescriptor, EnvDescriptorParseError> {
        self.0.parse_env_descriptor(text)
    }

    fn parse_sys_descriptor(&self, text: &str) -> Result<SysDescriptor, SysDescriptorParseError> {
        self.0.parse_sys_descriptor(text)
    }

    fn parse_allow_run_descriptor(&self, text: &str) -> Result<AllowRunDescriptorParseResult, RunDescriptorParseError> {
        self.0.parse_allow_run_descriptor(text)
    }

    fn parse_deny_run_descriptor(&self, text: &str) -> Result<DenyRunDescriptor, PathResolveError> {
        self.0.parse_deny_run_descriptor(text)
    }

    fn parse_run_query<'a>(&self, requested: &'a str) -> Result<RunQueryDescriptor<'a>, RunDescriptorParseError> {
        self.0.parse_run_query(requested)
    }

    fn parse_ffi_descriptor(&self, text: &str) -> Result<FfiDescriptor, PathResolveError> {
        self.0.parse_ffi_descriptor(text)
    }
}
