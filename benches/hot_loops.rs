//! How near the hot loops of calibration run to the machine's matrix product: GFLOP/s of each on one core, next to a plain
//! product of faer of the same size.
//!
//! `cargo bench --bench hot_loops`. Sizes are those of fc2 in a ViT-Tiny, a DeiT-S and a ViT-B. Repeated for half a second each;
//! the fastest repetition counts, as others share the machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use vitq::linalg::{add_gemm_nt, add_gemm_tn, add_gram, mirror};
use vitq::solve::{Grid, gptq, shrunk};

/// Tokens of 8 images.
const ROWS: usize = 8 * 197;

fn main() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let one_thread = one_thread.expect("a thread");
    println!("GFLOP/s on one core (share of the plain product)");
    println!(
        "{:>12} {:>14} {:>14} {:>14} {:>14} {:>14}",
        "k → out", "plain product", "Linear", "cross moments", "H = XᵀX", "GPTQ"
    );
    for (k, out) in [(768, 192), (1536, 384), (3072, 768)] {
        one_thread.install(|| print_row(k, out));
    }
}

fn print_row(k: usize, out: usize) {
    let x = noise(ROWS * k, 1);
    let w = noise(out * k, 2);
    let mut square = vec![0.0; k * k];
    let mut y = vec![0.0; ROWS * out];

    let plain = rate(2 * ROWS * k * out, || {
        matmul(
            MatMut::from_row_major_slice_mut(&mut y, ROWS, out),
            Accum::Replace,
            MatRef::from_row_major_slice(&x, ROWS, k),
            MatRef::from_row_major_slice(&w, out, k).transpose(),
            1.0,
            Par::Seq,
        );
    });
    let linear = rate(2 * ROWS * k * out, || {
        add_gemm_nt(&mut y, &x, &w, ROWS, k, out)
    });
    let cross = rate(2 * ROWS * k * k, || {
        add_gemm_tn(&mut square, &x, &x, ROWS, k, k)
    });
    // Half of the symmetric product.
    let gram = rate(ROWS * k * k, || add_gram(&mut square, &x, ROWS, k));

    let mut h = vec![0.0; k * k];
    add_gram(&mut h, &x, ROWS, k);
    mirror(&mut h, k);
    let h = shrunk(&h, k, 0.3);
    let cost: Vec<f32> = (0..k).map(|i| h[i * k + i]).collect();
    let grid = Grid::uniform(&w, k, 4, &cost);
    // Each channel's error is taken off all later ones, half of k² multiply-adds a row; H is factorised, k³/6 multiply-adds.
    let rounded = rate(out * k * k + k * k * k / 3, || {
        black_box(gptq(&w, k, &h, &grid));
    });
    print!("{:>12} {plain:>14.0}", format!("{k} → {out}"));
    for rate in [linear, cross, gram, rounded] {
        print!(
            " {:>14}",
            format!("{rate:.0} ({:.0} %)", 100.0 * rate / plain)
        );
    }
    println!();
}

/// 10⁹ floating-point operations a second, at the fastest.
fn rate(operations: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (start, mut fastest) = (Instant::now(), Duration::MAX);
    while start.elapsed() < Duration::from_millis(500) {
        let begin = Instant::now();
        work();
        fastest = fastest.min(begin.elapsed());
    }
    operations as f64 / fastest.as_secs_f64() / 1e9
}

/// Values in [-1, 1) that are the same each time.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
