use super::super::{Role, Structure, recognise};
use super::{parse, values};

// A block reads IN and writes OUT; `@` stands for the block's own prefix, `[~…]` for a node name under the block.

const SEPARATE: &str = "
    [~attn/query/MatMul] @qm = MatMul(@n1, w)  @q = Add(@qm, b)
    [~attn/key/MatMul] @km = MatMul(@n1, w)  @k = Add(@km, b)
    [~attn/value/MatMul] @vm = MatMul(@n1, w)  @v = Add(@vm, b)";

const QKV: &str = "[~attn/qkv/MatMul] @fm = MatMul(@n1, w3)  @f = Add(@fm, b3)";

const BY_SLICE: &str =
    "@q = Slice(@f, s0, s4, s2)  @k = Slice(@f, s4, s8, s2)  @v = Slice(@f, s8, s12, s2)";

const BY_SPLIT: &str = "@q, @k, @v = Split<axis=-1>(@f, fours)";

/// q, k, v [n, 3, 4] → [n, 2 heads, 3, 2], the keys transposed.
const HEADS: &str = "
    @qr = Reshape(@q, split)  @qh = Transpose<perm=[0,2,1,3]>(@qr)
    @kr = Reshape(@k, split)  @kt = Transpose<perm=[0,2,3,1]>(@kr)
    @vr = Reshape(@v, split)  @vh = Transpose<perm=[0,2,1,3]>(@vr)";

const FIVE: &str = "@r5 = Reshape(@f, five)  @p5 = Transpose<perm=[2,0,3,1,4]>(@r5)";

const BY_GATHER: &str = "
    @qh = Gather<axis=0>(@p5, i0)  @kh = Gather<axis=0>(@p5, i1)  @vh = Gather<axis=0>(@p5, i2)
    @kt = Transpose<perm=[0,1,3,2]>(@kh)";

const BY_SQUEEZE: &str = "
    @q5, @k5, @v5 = Split<axis=0>(@p5, ones)
    @qh = Squeeze(@q5, s0)  @kh = Squeeze(@k5, s0)  @vh = Squeeze(@v5, s0)
    @kt = Transpose<perm=[0,1,3,2]>(@kh)";

/// What stands around the computation of @qh, @kt and @vh.
const BEFORE: &str = "[~norm1/LayerNormalization] @n1 = LayerNormalization(IN, gamma, beta)";
const AFTER: &str = "
    @qs = Mul(@qh, scale)  [~attn/MatMul] @qk = MatMul(@qs, @kt)  @sm = Softmax(@qk)
    [~attn/MatMul_1] @av = MatMul(@sm, @vh)  @at = Transpose<perm=[0,2,1,3]>(@av)
    @ar = Reshape(@at, join)
    [~attn/proj/MatMul] @pm = MatMul(@ar, w)  @p = Add(@pm, b)  @r = Add(IN, @p)
    [~norm2/LayerNormalization] @n2 = LayerNormalization(@r, gamma, beta)
    [~mlp/fc1/MatMul] @am = MatMul(@n2, w1)  @a = Add(@am, b1)  @g = com.microsoft.Gelu(@a)
    [~mlp/fc2/MatMul] @om = MatMul(@g, w2)  @o = Add(@om, b)  OUT = Add(@r, @o)";

/// A network of two blocks, width 4, 2 heads, whose nodes are named under `prefix` followed by the block's number;
/// without a prefix they have no names.
fn network(operands: &[&str], prefix: Option<&str>) -> Structure {
    let constants = format!(
        "float[4,4] w = {}, float[4] b = {}, float[4,12] w3 = {}, float[12] b3 = {},
         float[4,6] w1 = {}, float[6] b1 = {}, float[6,4] w2 = {}, float[4,5] wh = {},
         float[4] gamma = {}, float[4] beta = {}, float scale = {{0.7}},
         int64 i0 = {{0}}, int64 i1 = {{1}}, int64 i2 = {{2}}, int64[1] s0 = {{0}},
         int64[1] s2 = {{2}}, int64[1] s4 = {{4}}, int64[1] s8 = {{8}}, int64[1] s12 = {{12}},
         int64[3] fours = {{4, 4, 4}}, int64[3] ones = {{1, 1, 1}}, int64[3] join = {{0, 3, 4}},
         int64[4] split = {{0, 3, 2, 2}}, int64[5] five = {{0, 3, 3, 2, 2}}",
        values(16),
        values(4),
        values(48),
        values(12),
        values(24),
        values(6),
        values(24),
        values(20),
        values(4),
        values(4)
    );
    let block = [&[BEFORE], operands, &[AFTER]].concat().join("\n");
    let nodes = [
        named(&block, 0, prefix)
            .replace("IN", "x")
            .replace("OUT", "x1"),
        named(&block, 1, prefix)
            .replace("IN", "x1")
            .replace("OUT", "x2"),
        "[\"/norm/LayerNormalization\"] z = LayerNormalization(x2, gamma, beta)
         c = Gather<axis=1>(z, i0)  [\"/head/Gemm\"] y = MatMul(c, wh)"
            .to_owned(),
    ];
    recognise(&parse(
        "(float[n,3,4] x) => (float[n,5] y)",
        &constants,
        &nodes.join("\n"),
    ))
}

fn named(block: &str, i: usize, prefix: Option<&str>) -> String {
    let mut pieces = block.split("[~");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(']').expect("a name in brackets");
        text += &prefix.map_or_else(String::new, |prefix| format!("[\"{prefix}{i}/{name}\"]"));
        text += rest;
    }
    text.replace('@', &format!("b{i}_"))
}

fn paths(found: &Structure) -> Vec<&str> {
    found.sites.iter().map(|s| s.path.as_str()).collect()
}

#[test]
fn every_way_to_take_q_k_and_v_apart() {
    let table = [
        (
            vec![SEPARATE, HEADS],
            vec![Role::Query, Role::Key, Role::Value],
        ),
        (vec![QKV, BY_SLICE, HEADS], vec![Role::Qkv]),
        (vec![QKV, BY_SPLIT, HEADS], vec![Role::Qkv]),
        (vec![QKV, FIVE, BY_GATHER], vec![Role::Qkv]),
        (vec![QKV, FIVE, BY_SQUEEZE], vec![Role::Qkv]),
    ];
    for (operands, projections) in table {
        let found = network(&operands, Some("/blocks/blocks."));
        let rest = [
            Role::Product,
            Role::Product,
            Role::Proj,
            Role::Fc1,
            Role::Fc2,
        ];
        assert_eq!(found.blocks.len(), 2);
        for block in &found.blocks {
            let roles: Vec<Role> = block.sites.iter().map(|&i| found.sites[i].role).collect();
            assert_eq!(roles, [&projections[..], &rest].concat(), "{operands:?}");
            assert_eq!(
                (block.heads, block.width, block.hidden),
                (Some(2), Some(4), Some(6))
            );
        }
        assert_eq!((found.mlps, found.classes()), (2, Some(5)));
        assert_eq!(found.norms.len(), 5);
        assert!(found.norms.iter().all(|n| n.declined.is_none()));
        assert!(found.declined.is_empty(), "{:?}", found.declined);
    }
}

#[test]
fn blocks_keep_the_exporters_path() {
    let found = network(&[QKV, BY_SPLIT, HEADS], Some("/vit/encoder/encoder/layer."));
    assert_eq!(found.blocks[1].path, "vit.encoder.encoder.layer.1");
    let under = "vit.encoder.encoder.layer.0";
    let expected = [
        "attn.qkv",
        "attn.qk",
        "attn.av",
        "attn.proj",
        "mlp.fc1",
        "mlp.fc2",
    ];
    assert_eq!(paths(&found)[..6], expected.map(|p| format!("{under}.{p}")));
    assert_eq!(paths(&found)[12], "head");
    let underscored = network(&[SEPARATE, HEADS], Some("/encoder/layers/encoder_layer_"));
    assert_eq!(underscored.blocks[1].path, "encoder.layers.encoder_layer_1");
}

#[test]
fn blocks_without_paths_go_by_their_order() {
    let found = network(&[QKV, FIVE, BY_GATHER], None);
    let expected = [
        "attn.qkv",
        "attn.qk",
        "attn.av",
        "attn.proj",
        "mlp.fc1",
        "mlp.fc2",
    ];
    for (i, block) in found.blocks.iter().enumerate() {
        assert_eq!(block.path, format!("blocks.{i}"));
        let own: Vec<&str> = block
            .sites
            .iter()
            .map(|&s| found.sites[s].path.as_str())
            .collect();
        assert_eq!(own, expected.map(|p| format!("blocks.{i}.{p}")));
    }
    assert_eq!(found.sites[0].name, "MatMul_b0_fm");
}

#[test]
fn the_description_says_it_all() {
    let found = network(&[QKV, BY_SPLIT, HEADS], Some("/blocks/blocks."));
    let text = found.to_string();
    let block = "attn.qkv 4×12 (norm folds), attn.qk, attn.av, attn.proj 4×4, \
                 mlp.fc1 4×6 (norm folds), mlp.fc2 6×4";
    let expected = format!(
        "ViT: width 4, 2 blocks, 2 heads, MLP 6, 5 classes\n\
         9 Linears, 2 Q·Kᵀ, 2 attention·V, 2 MLPs; 5 LayerNormalizations, 5 of them fold into Linears\n  \
         blocks.0: {block}\n  blocks.1: {block}\n  head 4×5 (norm folds)\n\
         residual stream: 4 channels, 4 writers, 5 norms: cannot be rotated, it begins at the input x\n"
    );
    assert_eq!(text, expected);
    let json = serde_json::to_value(found.summary()).expect("plain data");
    assert_eq!(json["classes"], 5);
    assert_eq!(json["blocks"][1]["sites"][0]["role"], "qkv");
    assert_eq!(
        json["blocks"][1]["sites"][0]["norm"],
        "/blocks/blocks.1/norm1/LayerNormalization"
    );
    assert_eq!(json["sites"][0]["path"], "head");
    assert_eq!(json["norms"][4]["sites"][0], "/head/Gemm");
}
