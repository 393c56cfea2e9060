//! placeholder until merge
pub mod names;
pub struct Compiled { pub code: String, pub map: SourceMap, pub operations: Vec<Operation> }
pub struct Operation { pub name: String, pub line: u32, pub column: u32, pub order: u32 }
pub struct SourceMap;
impl SourceMap { pub fn original_position(&self, line: u32, column: u32) -> Option<(u32,u32)> { Some((line, column)) } }
impl Compiled { pub fn verbatim(code: String) -> Self { Self { code, map: SourceMap, operations: vec![] } } }
