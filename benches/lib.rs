//! The benchmarks of weir; each is a target of its own under `benches/`.
