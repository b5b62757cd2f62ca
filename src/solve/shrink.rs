//! Shrinkage of second moments: what few tokens say of channels together is trusted less than what they say of each, and
//! that less than what they say of all.

/// `H + damping·(diag(H) + mean(diag(H))·I)` for `h [k, k]`; ones on the diagonal where nothing arrived at all.
pub fn shrunk(h: &[f32], k: usize, damping: f32) -> Vec<f32> {
    let mean = (0..k).map(|i| h[i * k + i]).sum::<f32>() / k as f32;
    let floor = if mean > 0.0 { damping * mean } else { 1.0 };
    let mut h = h.to_vec();
    for i in 0..k {
        h[i * k + i] += damping * h[i * k + i] + floor;
    }
    h
}
