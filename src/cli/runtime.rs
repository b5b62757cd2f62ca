//! Names of the programs that evaluate models.

use clap::ValueEnum;
use vitq::run::Runtime;

/// What `--runtime` takes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    Tract,
    Onnxruntime,
}

impl From<Runtime> for RuntimeName {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Tract => Self::Tract,
            Runtime::OnnxRuntime => Self::Onnxruntime,
        }
    }
}

impl From<RuntimeName> for Runtime {
    fn from(name: RuntimeName) -> Self {
        match name {
            RuntimeName::Tract => Self::Tract,
            RuntimeName::Onnxruntime => Self::OnnxRuntime,
        }
    }
}
