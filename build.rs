//! Compiles `protos/` to Rust, without protoc.

fn main() {
    const FILES: [&str; 5] = [
        "protos/services/sandbox/v1/sandbox.proto",
        "protos/types/record.proto",
        "protos/runtime/v1/pod.proto",
        "protos/shoal/v1/shim.proto",
        "protos/shoal/v1/status.proto",
    ];
    println!("cargo::rerun-if-changed=protos");
    generate(&FILES, "protos");
    // CRIU's are not the service's.
    generate(&["protos/criu/rpc.proto", "protos/criu/image.proto"], "criu");
}

fn generate(files: &[&str], folder: &str) {
    protobuf_codegen::Codegen::new()
        .pure()
        .include("protos")
        .inputs(files)
        .cargo_out_dir(folder)
        .run_from_script();
}
