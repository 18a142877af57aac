// swift-tools-version: 6.0
import PackageDescription

let package = Package(
  name: "FaceCore",
  platforms: [.iOS(.v18), .macOS(.v15)],
  products: [.library(name: "FaceCore", targets: ["FaceCore"])],
  targets: [
    // `kernel` is a link to export/kernel: one source for every runtime. ONNX Runtime's and LiteRT's adapters stay out.
    .target(
      name: "AcwfaceKernel",
      sources: [
        "avx2.c", "avx512.c", "kernel/conv3x3.c", "kernel/kernels.c", "kernel/neon.c", "kernel/scalar.c",
      ]
    ),
    .target(name: "FaceCore", dependencies: ["AcwfaceKernel"]),
    .testTarget(name: "FaceCoreTests", dependencies: ["FaceCore"]),
  ]
)
