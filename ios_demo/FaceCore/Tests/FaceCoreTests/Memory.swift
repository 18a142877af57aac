@testable import FaceCore

/// Pixels of blue, green, red and alpha with something more at the end of each row.
struct Pixels {
  let height, width, rowBytes: Int
  private(set) var bytes: [UInt8]

  init(height: Int, width: Int, extra: Int, fill: UInt8 = 255) {
    self.height = height
    self.width = width
    rowBytes = 4 * width + extra
    bytes = Array(repeating: fill, count: height * rowBytes)
  }

  /// As `tests/golden/README.md` says: upper bytes of a linear congruential generator, for red, green, blue of each pixel.
  mutating func fill(seed: UInt32) {
    var state = seed
    for row in 0..<height {
      for column in 0..<width {
        for channel in [2, 1, 0] {
          state = 1_664_525 &* state &+ 1_013_904_223
          bytes[row * rowBytes + 4 * column + channel] = UInt8(state >> 24)
        }
      }
    }
  }

  mutating func with<T>(_ use: (Picture) -> T) -> T {
    bytes.withUnsafeMutableBytes { use(Picture(pixels: $0.baseAddress!, height: height, width: width, rowBytes: rowBytes)) }
  }

  /// What the network's file makes of it.
  func tensor(_ spec: InputSpec) -> [Float] {
    let order = spec.colourOrder == .bgr ? [0, 1, 2] : [2, 1, 0]
    func value(_ row: Int, _ column: Int, _ place: Int) -> Float {
      (Float(bytes[row * rowBytes + 4 * column + order[place]]) - Float(spec.mean[place])) * Float(spec.scale)
    }
    let places = (0..<height).flatMap { row in (0..<width).map { (row, $0) } }
    switch spec.layout {
    case .planes: return (0..<3).flatMap { place in places.map { value($0.0, $0.1, place) } }
    case .pixels: return places.flatMap { at in (0..<3).map { value(at.0, at.1, $0) } }
    }
  }
}

/// Floats in memory of their own, of exactly their size: a sanitizer sees every access beyond.
final class Floats {
  let tensor: Tensor
  private let memory: UnsafeMutableBufferPointer<Float>

  /// - Parameter strides: of a dense array where there are none.
  init(_ values: [Float], shape: [Int], strides: [Int]? = nil) {
    memory = .allocate(capacity: values.count)
    _ = memory.initialize(from: values)
    var dense = shape
    for axis in dense.indices { dense[axis] = shape[(axis + 1)...].reduce(1, *) }
    tensor = Tensor(base: memory.baseAddress!, shape: shape, strides: strides ?? dense)
  }

  deinit { memory.deallocate() }

  var array: [Float] { Array(memory) }
}
