//! Running in ONNX Runtime, loaded from its shared library.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ndarray::ArrayD;
use ort::environment::Environment;
use ort::ep::CPU;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType, ValueType};
use vitq_onnx::Model;

use super::signature::with_outputs;
use super::{Array, Executor, RunError, RunOptions, Runtime, Signature};

/// A session of ONNX Runtime; runs wait for each other.
pub struct OrtModel {
    session: Mutex<Session>,
    signature: Signature,
}

impl OrtModel {
    /// Opens a session on an encoded model.
    pub fn load(
        bytes: &[u8],
        signature: Signature,
        options: &RunOptions,
    ) -> Result<Self, RunError> {
        let mut builder = configured(options)?;
        let tapped = with_outputs(bytes, &signature.undeclared);
        let session = builder.commit_from_memory(&tapped).map_err(loading)?;
        Ok(Self {
            session: Mutex::new(session),
            signature,
        })
    }

    /// Opens a session on a file, which may have data files beside it.
    pub fn open(
        path: &Path,
        input_dims: &[(String, Vec<usize>)],
        options: &RunOptions,
    ) -> Result<Self, RunError> {
        let bytes = fs::read(path).map_err(|e| RunError::Decode(e.to_string()))?;
        let signature = Signature::read(&bytes, input_dims, &[])?;
        drop(bytes);
        let session = configured(options)?.commit_from_file(path);
        Ok(Self {
            session: Mutex::new(session.map_err(loading)?),
            signature,
        })
    }
}

/// The graph that a session executes, as ONNX Runtime writes it down.
pub fn optimised(path: &Path, options: &RunOptions) -> Result<Model, RunError> {
    let failed = |message: String| RunError::Load {
        runtime: Runtime::OnnxRuntime,
        message,
    };
    let folder = tempfile::tempdir().map_err(|e| failed(e.to_string()))?;
    let written = folder.path().join("optimised.onnx");
    configured(options)?
        .with_optimized_model_path(&written)
        .map_err(loading)?
        // It warns that the file is for this machine alone.
        .with_log_level(LogLevel::Error)
        .map_err(loading)?
        .commit_from_file(path)
        .map_err(loading)?;
    let loaded = vitq_onnx::load(&written).map_err(|e| failed(e.to_string()))?;
    Ok(loaded.model)
}

/// A session on an encoded part of a network, one of many in this process: a memory arena for each would add up.
pub fn segment(bytes: &[u8]) -> Result<Session, RunError> {
    let cpu = CPU::default().with_arena_allocator(false).build();
    configured(&RunOptions::default())?
        .with_execution_providers([cpu])
        .map_err(loading)?
        .with_memory_pattern(false)
        .map_err(loading)?
        .commit_from_memory(bytes)
        .map_err(loading)
}

/// Fails where the shared library does not load.
pub fn available() -> Result<(), RunError> {
    environment(&RunOptions::default()).map(drop)
}

impl Executor for OrtModel {
    fn run(&self, inputs: &[(String, Array)]) -> Result<Vec<Array>, RunError> {
        let arrays = self.signature.arrange(inputs)?;
        let names = self.signature.inputs.iter().map(|(name, _)| name.as_str());
        let feed = names
            .zip(arrays)
            .map(|(name, array)| Ok((name, to_ort(array)?)))
            .collect::<Result<Vec<(&str, SessionInputValue)>, ort::Error>>()
            .map_err(running)?;
        let mut session = lock(&self.session);
        let given = session.run(feed).map_err(running)?;
        self.signature
            .outputs
            .iter()
            .map(
                |name| match inputs.iter().find(|(input, _)| input == name) {
                    // An input that is declared an output as well may come back overwritten (1.31.1).
                    Some((_, array)) => Ok(array.clone()),
                    None => from_ort(name, given.get(name).ok_or_else(|| missing(name))?),
                },
            )
            .collect()
    }

    fn outputs(&self) -> &[String] {
        &self.signature.outputs
    }

    fn fused(&self) -> Option<usize> {
        None
    }
}

fn configured(options: &RunOptions) -> Result<SessionBuilder, RunError> {
    let level = match options.optimise {
        true => GraphOptimizationLevel::All,
        false => GraphOptimizationLevel::Disable,
    };
    Session::builder(&environment(options)?)
        .map_err(loading)?
        .with_optimization_level(level)
        .map_err(loading)?
        .with_intra_threads(options.threads.max(1))
        .map_err(loading)?
        // Idle workers of one session would take time from another one in this process.
        .with_config_entry("session.force_spinning_stop", "1")
        .map_err(loading)
}

/// The process has one environment; the first library that loads is the one used.
fn environment(options: &RunOptions) -> Result<Environment, RunError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut slot = lock(&ENVIRONMENT);
    if let Some(environment) = &*slot {
        return Ok(environment.clone());
    }
    let library = library(options)?;
    let environment = ort::init_from(library)
        .map_err(|e| RunError::LibraryMissing(e.to_string()))?
        .with_name("vitq")
        .build()
        .map_err(loading)?;
    Ok(slot.insert(environment).clone())
}

fn library(options: &RunOptions) -> Result<PathBuf, RunError> {
    let named = options.library.clone();
    let path = named
        .or_else(|| {
            std::env::var_os("ORT_DYLIB_PATH")
                .filter(|p| !p.is_empty())
                .map(PathBuf::from)
        })
        .ok_or_else(|| RunError::LibraryMissing("ORT_DYLIB_PATH is not set".to_owned()))?;
    if path.components().count() > 1 && !path.exists() {
        let message = format!("there is no file {}", path.display());
        return Err(RunError::LibraryMissing(message));
    }
    Ok(path)
}

/// A panic of another thread leaves no half-made state in what is locked here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_ort(array: &Array) -> Result<SessionInputValue<'static>, ort::Error> {
    Ok(match array {
        Array::F32(a) => Tensor::from_array(a.to_owned().into_owned())?.into(),
        Array::I64(a) => Tensor::from_array(a.to_owned().into_owned())?.into(),
        Array::I32(a) => Tensor::from_array(a.to_owned().into_owned())?.into(),
        Array::Bool(a) => Tensor::from_array(a.to_owned().into_owned())?.into(),
        Array::U8(a) => Tensor::from_array(a.to_owned().into_owned())?.into(),
    })
}

/// Copies a value, widened as [`Executor::run`] says.
fn from_ort(name: &str, value: &DynValue) -> Result<Array, RunError> {
    use TensorElementType as E;
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(untyped(name, value));
    };
    Ok(match ty {
        E::Float32 => elements::<f32, _>(value, |v| v)?.into(),
        E::Float64 => elements::<f64, _>(value, |v| v as f32)?.into(),
        E::Float16 => elements::<half::f16, _>(value, f32::from)?.into(),
        E::Int32 => elements::<i32, _>(value, |v| v)?.into(),
        E::Int16 => elements::<i16, _>(value, i32::from)?.into(),
        E::Int8 => elements::<i8, _>(value, i32::from)?.into(),
        E::Uint16 => elements::<u16, _>(value, i32::from)?.into(),
        E::Int64 => elements::<i64, _>(value, |v| v)?.into(),
        E::Uint32 => elements::<u32, _>(value, i64::from)?.into(),
        E::Uint64 => elements::<u64, _>(value, |v| v as i64)?.into(),
        E::Uint8 => elements::<u8, _>(value, |v| v)?.into(),
        E::Bool => elements::<bool, _>(value, |v| v)?.into(),
        _ => return Err(untyped(name, value)),
    })
}

fn elements<T: PrimitiveTensorElementType + Copy, U>(
    value: &DynValue,
    convert: impl Fn(T) -> U,
) -> Result<ArrayD<U>, RunError> {
    Ok(value
        .try_extract_array::<T>()
        .map_err(running)?
        .mapv(convert))
}

fn untyped(name: &str, value: &DynValue) -> RunError {
    RunError::OutputType {
        name: name.to_owned(),
        found: value.dtype().to_string(),
    }
}

fn missing(name: &str) -> RunError {
    let message = format!("it gave no value `{name}`");
    RunError::Run {
        runtime: Runtime::OnnxRuntime,
        message,
    }
}

fn loading<T>(error: ort::Error<T>) -> RunError {
    RunError::Load {
        runtime: Runtime::OnnxRuntime,
        message: error.to_string(),
    }
}

fn running(error: ort::Error) -> RunError {
    RunError::Run {
        runtime: Runtime::OnnxRuntime,
        message: error.to_string(),
    }
}
