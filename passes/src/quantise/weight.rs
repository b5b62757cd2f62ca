//! Quantised weights as initialisers.
//!
//! ```text
//! int8 codes → DequantizeLinear(scale[out], zero_point[out], axis)
//! uint8, 2 or 4 codes each → Cast(int32) → Gather(int8 table [bytes, 2 or 4]) → Reshape → DequantizeLinear(…)  (at most 4 or 2 bits)
//! INT4 or int8 codes → DequantizeLinear(scale[in / block, out], axis 0, block_size)                 (a scale for each block of inputs)
//! ```
//! The table form takes a half or a quarter of the bytes, without 4- and 2-bit types, which need newer operator sets (21 and 25) and which tract and RTen
//! do not load. What folds constants when it loads a model runs it as fast as plain int8; for other targets codes stay int8.
//! Zero points are written even where all are zero: without them ONNX Runtime does not fuse the product
//! when shapes are static (seen with 1.31: float Gemm instead of QGemm).
//! In blocks they are left out where all are zero: ONNX Runtime makes MatMulNBits of both (a DequantizeLinear of constants with one
//! reader, its blocks a power of two of at least 16 inputs along axis 0), whatever the shapes, and a shorter last block is none too few.

use vitq_onnx::{DataType, Tensor};

use crate::ir::{Graph, Op, Outlet};
use crate::plan::Weight;
use crate::target::Target;
use crate::transform::{TransformError, check_lengths, transposed};

/// ONNX `TensorProto.DataType.INT32`
const INT32: i64 = 6;

/// What the codes of a packed weight stand for: its codebook, or the evenly spaced codes that it has.
fn levels(weight: &Weight) -> Vec<i8> {
    weight.table.clone().unwrap_or_else(|| {
        let mut levels = weight.codes.clone();
        levels.sort_unstable();
        levels.dedup();
        levels
    })
}

/// Refuses a weight that does not fit the site, or has scales that are not positive.
pub(super) fn check(
    site: &str,
    weight: &Weight,
    inputs: usize,
    outputs: usize,
) -> Result<(), TransformError> {
    check_lengths(site, &[("weight", weight.codes.len())], inputs * outputs)?;
    check_lengths(site, &[("weight's rows", weight.out)], outputs)?;
    check_block(site, weight)?;
    let scales = weight.scales_of_row(inputs);
    check_lengths(
        site,
        &[("weight's scale", weight.scale.len())],
        outputs * scales,
    )?;
    if !weight.zero_point.is_empty() {
        check_lengths(
            site,
            &[("weight's zero point", weight.zero_point.len())],
            outputs * scales,
        )?;
    }
    if let Some(c) = weight
        .scale
        .iter()
        .position(|s| !(s.is_finite() && *s > 0.0))
    {
        let problem = format!(
            "output channel {} has the weight scale {}: it must be positive and finite",
            c / scales,
            weight.scale[c]
        );
        return Err(TransformError::new(site, problem));
    }
    check_table(site, weight)
}

fn check_block(site: &str, weight: &Weight) -> Result<(), TransformError> {
    let problem = match weight.block {
        Some(block) if block == 0 || block > weight.inputs() => format!(
            "the weight's blocks have {block} inputs, a row has {}: make the plan again",
            weight.inputs()
        ),
        Some(_) if weight.table.is_some() => {
            "the weight has a codebook and a scale a block, which evenly spaced levels alone can have: make the plan again".to_owned()
        }
        _ => return Ok(()),
    };
    Err(TransformError::new(site, problem))
}

fn check_table(site: &str, weight: &Weight) -> Result<(), TransformError> {
    let Some(table) = &weight.table else {
        return Ok(());
    };
    let most = 1_usize.checked_shl(weight.bits).unwrap_or(usize::MAX);
    if table.is_empty() || table.len() > most || !table.is_sorted() {
        let problem = format!(
            "the weight's codebook has {} levels: it needs 1 to {most} in ascending order",
            table.len()
        );
        return Err(TransformError::new(site, problem));
    }
    match weight
        .codes
        .iter()
        .find(|c| table.binary_search(c).is_err())
    {
        None => Ok(()),
        Some(code) => Err(TransformError::new(
            site,
            format!("the weight's codebook has no level {code}: make the plan again"),
        )),
    }
}

/// Writes the weight for a kernel of shape `dims` whose outputs lie on `axis` (0 of `[out, in, kh, kw]`, 1 of `[in, out]`) and
/// returns its float value.
pub(super) fn emit(
    graph: &mut Graph,
    site: &str,
    weight: &Weight,
    (dims, axis): (&[usize], usize),
    target: &Target,
) -> Result<Outlet, TransformError> {
    let name = format!("{site}/weight");
    let codes = match axis {
        0 => weight.codes.clone(),
        _ => transposed(&weight.codes, weight.inputs()),
    };
    if let Some(block) = weight.block {
        return emit_blocks(graph, &name, weight, (dims, &codes), block, target);
    }
    let packing = Packing::of(weight, target);
    let codes = match packing.filter(|it| it.fits(codes.len())) {
        Some(packing) => packing.emit(graph, &name, dims, &codes),
        None => graph.add_initializer(&format!("{name}/codes"), &Tensor::from_i8(dims, &codes)),
    };
    let zeros = match &weight.zero_point[..] {
        [] => vec![0; weight.out],
        zeros => zeros.to_vec(),
    };
    let scale = graph.add_initializer(
        &format!("{name}/scale"),
        &Tensor::from_f32(&[weight.out], &weight.scale),
    );
    let zero = graph.add_initializer(
        &format!("{name}/zero_point"),
        &Tensor::from_i8(&[weight.out], &zeros),
    );
    let op = Op::new("DequantizeLinear", &format!("{name}/DequantizeLinear"))
        .with_int("axis", axis as i64);
    Ok(graph.insert_op(op, &[codes, scale, zero]))
}

/// The same with a scale for each block of inputs; `codes` are `[in, out]`.
fn emit_blocks(
    graph: &mut Graph,
    name: &str,
    weight: &Weight,
    (dims, codes): (&[usize], &[i8]),
    block: usize,
    target: &Target,
) -> Result<Outlet, TransformError> {
    let blocks = weight.scales_of_row(weight.inputs());
    let scale = Tensor::from_f32(&[blocks, weight.out], &transposed(&weight.scale, blocks));
    let zero_point = transposed(&weight.zero_point, blocks);
    let mut codes_of = |what: &str, dims: &[usize], codes: &[i8]| {
        let tensor = if target.codes_a_byte(weight.bits) > 1 {
            let codes: Vec<i16> = codes.iter().map(|&code| code.into()).collect();
            Tensor::packed(DataType::Int4, dims, &codes)
                .map_err(|e| TransformError::new(name, e.to_string()))?
        } else {
            Tensor::from_i8(dims, codes)
        };
        Ok::<_, TransformError>(graph.add_initializer(&format!("{name}/{what}"), &tensor))
    };
    let codes = codes_of("codes", dims, codes)?;
    let zero = match &zero_point[..] {
        [] => None,
        zeros => Some(codes_of("zero_point", &[blocks, weight.out], zeros)?),
    };
    let scale = graph.add_initializer(&format!("{name}/scale"), &scale);
    let op = Op::new("DequantizeLinear", &format!("{name}/DequantizeLinear"))
        .with_int("axis", 0)
        .with_int("block_size", block as i64);
    let inputs: Vec<Outlet> = [codes, scale].into_iter().chain(zero).collect();
    Ok(graph.insert_op(op, &inputs))
}

/// Codes that share bytes: the digits of a number whose base is the count of levels, the lowest one first.
struct Packing {
    /// Ascending.
    levels: Vec<i8>,
    codes_a_byte: usize,
}

impl Packing {
    fn of(weight: &Weight, target: &Target) -> Option<Packing> {
        let codes_a_byte = target.codes_a_byte(weight.bits);
        (codes_a_byte > 1).then(|| Packing {
            levels: levels(weight),
            codes_a_byte,
        })
    }

    /// Whether so many codes fill their bytes, and a byte has a value for each combination.
    fn fits(&self, codes: usize) -> bool {
        codes.is_multiple_of(self.codes_a_byte) && self.levels.len() <= 1 << (8 / self.codes_a_byte)
    }

    fn byte(&self, codes: &[i8]) -> u8 {
        let digit = |code| self.levels.binary_search(code).unwrap_or_default();
        let digits = codes.iter().rev().map(digit);
        digits.fold(0, |byte, digit| byte * self.levels.len() + digit) as u8
    }

    /// What each byte stands for, `[bytes, codes a byte]`.
    fn table(&self) -> Vec<i8> {
        let base = self.levels.len();
        let places = || (0..self.codes_a_byte as u32).map(|place| base.pow(place));
        let bytes = 0..base.pow(self.codes_a_byte as u32);
        let of = |byte: usize| places().map(move |place| self.levels[byte / place % base]);
        bytes.flat_map(of).collect()
    }

    fn emit(&self, graph: &mut Graph, name: &str, dims: &[usize], codes: &[i8]) -> Outlet {
        let bytes: Vec<u8> = codes
            .chunks_exact(self.codes_a_byte)
            .map(|codes| self.byte(codes))
            .collect();
        let mut constant =
            |what: &str, tensor: &Tensor| graph.add_initializer(&format!("{name}/{what}"), tensor);
        let codes = constant("codes", &Tensor::from_u8(&[bytes.len()], &bytes));
        let table = self.table();
        let rows = table.len() / self.codes_a_byte;
        let table = constant(
            "table",
            &Tensor::from_i8(&[rows, self.codes_a_byte], &table),
        );
        let shape: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let shape = constant("shape", &Tensor::from_i64(&[dims.len()], &shape));
        // Gather wants indices of 32 bits.
        let cast = Op::new("Cast", &format!("{name}/Cast")).with_int("to", INT32);
        let codes = graph.insert_op(cast, &[codes]);
        let levels = graph.insert("Gather", &format!("{name}/Gather"), &[table, codes]);
        graph.insert("Reshape", &format!("{name}/Reshape"), &[levels, shape])
    }
}
