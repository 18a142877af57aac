/// A place and a size that the network's answers are relative to, in pixels of its input.
public struct Anchor: Sendable, Equatable {
  /// Of the centre.
  public let x, y: Float
  public let width, height: Float
}

/// Anchors of an input of `height` x `width` pixels (RetinaFace, Deng et al. 2020, section 3.4; square only).
///
/// Levels in order, cells row by row, sizes of a cell next to each other: the order of the network's outputs.
///
/// - Throws: ``FormatError``: not one list of sizes for each stride, or a stride below 1.
public func makeAnchors(height: Int, width: Int, strides: [Int], minSizes: [[Int]]) throws -> [Anchor] {
  guard strides.count == minSizes.count else { throw FormatError("anchors: one list of min_sizes for each stride expected") }
  guard strides.allSatisfy({ $0 >= 1 }) else { throw FormatError("anchors: strides of at least 1 expected") }
  var anchors: [Anchor] = []
  for (stride, sizes) in zip(strides, minSizes) {
    for row in 0..<cells(height, stride) {
      for column in 0..<cells(width, stride) {
        for size in sizes.map(Float.init) {
          let x = (Double(column) + 0.5) * Double(stride)
          let y = (Double(row) + 0.5) * Double(stride)
          anchors.append(Anchor(x: Float(x), y: Float(y), width: size, height: size))
        }
      }
    }
  }
  return anchors
}

private func cells(_ pixels: Int, _ stride: Int) -> Int { (pixels + stride - 1) / stride }
