//! Names of the programs that evaluate models.

use clap::ValueEnum;
use vitq::run::Runtime;

/// What `--runtime` takes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    Tract,
    Onnxruntime,
}

/// What runs the network in calibration.
#[derive(clap::Args)]
#[group(skip)]
pub struct Executor {
    /// What runs the operators between the quantised products, and verifies the result. tract is built in; onnxruntime (in a build
    /// with it) is for models with operators that tract does not know
    #[arg(long, value_enum, value_name = "NAME", default_value = "tract")]
    executor: RuntimeName,
}

impl From<&Executor> for Runtime {
    fn from(args: &Executor) -> Self {
        args.executor.into()
    }
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
