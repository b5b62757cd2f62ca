//! Quantised weights as initialisers.
//!
//! ```text
//! int8 codes → DequantizeLinear(scale[out], zero_point[out], axis)
//! uint8, 2 or 4 codes each → Cast(int32) → Gather(int8 table [2 or 4, bytes], axis 1) → Flatten → DequantizeLinear(…)  (at most 4 or 2 bits)
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
    let codes = match packing.filter(|it| it.fits(dims)) {
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

    /// Whether a weight of this shape fills its bytes, and a byte has a value for each combination.
    fn fits(&self, dims: &[usize]) -> bool {
        let rows = dims.first().copied().unwrap_or(0);
        rows.is_multiple_of(self.codes_a_byte) && self.levels.len() <= 1 << (8 / self.codes_a_byte)
    }

    /// One byte for the codes at the same place in each of as many equal parts.
    fn bytes(&self, codes: &[i8]) -> Vec<u8> {
        let length = codes.len() / self.codes_a_byte;
        let digit = |place: usize| self.levels.binary_search(&codes[place]).unwrap_or_default();
        let byte = |i: usize| {
            let digits = (0..self.codes_a_byte)
                .rev()
                .map(|part| digit(part * length + i));
            digits.fold(0, |byte, digit| byte * self.levels.len() + digit) as u8
        };
        (0..length).map(byte).collect()
    }

    /// What each byte stands for, `[codes a byte, bytes]`.
    fn table(&self) -> Vec<i8> {
        let base = self.levels.len();
        let bytes = base.pow(self.codes_a_byte as u32);
        let places = (0..self.codes_a_byte as u32).map(|place| base.pow(place));
        places
            .flat_map(|place| (0..bytes).map(move |byte| self.levels[byte / place % base]))
            .collect()
    }

    /// Levels without a gap between are those of many weights, which share a table.
    fn table_name(&self, name: &str) -> String {
        match &self.levels[..] {
            [low, .., high] if usize::from(low.abs_diff(*high)) + 1 == self.levels.len() => {
                format!("vitq/levels/{low}..{high}/{}", self.codes_a_byte)
            }
            _ => format!("{name}/table"),
        }
    }

    /// The codes as they were, of shape `dims`.
    fn emit(&self, graph: &mut Graph, name: &str, dims: &[usize], codes: &[i8]) -> Outlet {
        let mut packed = dims.to_vec();
        packed[0] /= self.codes_a_byte;
        let bytes = Tensor::from_u8(&packed, &self.bytes(codes));
        let bytes = graph.add_initializer(&format!("{name}/codes"), &bytes);
        let (known, table) = (self.table_name(name), self.table());
        let dims_of_table = [self.codes_a_byte, table.len() / self.codes_a_byte];
        let table = graph.find(&known).unwrap_or_else(|| {
            graph.add_initializer(&known, &Tensor::from_i8(&dims_of_table, &table))
        });
        // Gather wants indices of 32 bits.
        let cast = Op::new("Cast", &format!("{name}/Cast")).with_int("to", INT32);
        let bytes = graph.insert_op(cast, &[bytes]);
        let gather = Op::new("Gather", &format!("{name}/Gather")).with_int("axis", 1);
        let parts = graph.insert_op(gather, &[table, bytes]);
        if let [_, _] = dims {
            let flatten = Op::new("Flatten", &format!("{name}/Flatten")).with_int("axis", 2);
            return graph.insert_op(flatten, &[parts]);
        }
        let shape: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let shape = Tensor::from_i64(&[dims.len()], &shape);
        let shape = graph.add_initializer(&format!("{name}/shape"), &shape);
        graph.insert("Reshape", &format!("{name}/Reshape"), &[parts, shape])
    }
}
