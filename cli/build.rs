//! Gives the binary its build id.

use std::path::Path;

#[path = "build_id.rs"]
mod build_id;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for counted in build_id::COUNTED {
        println!("cargo:rerun-if-changed=../{counted}");
    }
    println!("cargo:rerun-if-changed=build_id.rs");
    let enabled = |name: &str| std::env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some();
    let features: Vec<&str> = ["epoll", "uring"].into_iter().filter(|name| enabled(name)).collect();
    let id = build_id::build_id(&root, &features).expect("the sources can be read");
    println!("cargo:rustc-env=WEIR_BUILD_ID={id}");
    println!("cargo:rustc-env=WEIR_FEATURES={}", features.join(","));
}
