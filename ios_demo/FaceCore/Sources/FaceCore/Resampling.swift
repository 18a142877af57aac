/// Weights of Pillow's bilinear filter along one axis, antialiased when it shrinks, in the fixed point that Pillow uses for bytes: whoever sums
/// with them as ``Letterboxer`` does gets Pillow's bytes.
struct Resampling {
  /// Bits behind the point: 8 are the byte's, 2 are spare.
  static let precision = Int32(32 - 8 - 2)
  static let half = SIMD4<Int32>(repeating: 1 << (precision - 1))

  /// Pixels of the target.
  let count: Int

  /// Most source pixels of one target pixel.
  let taps: Int

  /// Source pixels of each target pixel.
  private(set) var sources: [Range<Int>] = []

  /// `taps` for each target pixel, of which as many are used as it has sources.
  private(set) var weights: [Int32]

  init(from: Int, to: Int) {
    let scale = Double(from) / Double(to)
    let support = max(scale, 1)
    count = to
    taps = Int(support.rounded(.up)) * 2 + 1
    weights = Array(repeating: 0, count: to * taps)
    for target in 0..<to {
      let centre = (Double(target) + 0.5) * scale
      let first = max(Int(centre - support + 0.5), 0)
      let last = min(Int(centre + support + 0.5), from)
      let exact: [Double] = (first..<last).map { source in
        let distance = (Double(source) - centre + 0.5) * (1 / support)
        return max(0, 1 - abs(distance))
      }
      let sum = exact.reduce(0, +)
      for (tap, weight) in exact.enumerated() {
        let share = sum == 0 ? weight : weight / sum
        weights[target * taps + tap] = Int32(0.5 + share * Double(1 << Self.precision))
      }
      sources.append(first..<last)
    }
  }

  /// From sums that began with ``half``.
  static func bytes(_ sums: SIMD4<Int32>) -> SIMD4<UInt8> {
    let shifted = sums &>> SIMD4(repeating: precision)
    return SIMD4<UInt8>(truncatingIfNeeded: shifted.clamped(lowerBound: .zero, upperBound: SIMD4(repeating: 255)))
  }
}
