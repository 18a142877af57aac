/// The network's answers, a row for each anchor.
public struct Outputs: Sendable {
  public var scores: [Float] = []

  /// Four for each anchor.
  public var boxDeltas: [Float] = []

  /// Ten for each anchor; none of a network that detects only.
  public var landmarkDeltas: [Float] = []

  public init() {}

  /// Where the output of a meaning goes.
  public static func place(of meaning: Meaning) -> WritableKeyPath<Outputs, [Float]> & Sendable {
    switch meaning {
    case .scores: \.scores
    case .boxDeltas: \.boxDeltas
    case .landmarkDeltas: \.landmarkDeltas
    }
  }

  func isComplete(for anchors: Int) -> Bool {
    scores.count == anchors && boxDeltas.count == 4 * anchors && [10 * anchors, 0].contains(landmarkDeltas.count)
  }

  /// The largest difference of two networks' scores; infinite where one is not a number, or they are not equally many.
  public func scoreDifference(from other: Outputs) -> Float {
    guard scores.count == other.scores.count else { return .infinity }
    var largest: Float = 0
    for (one, another) in zip(scores, other.scores) {
      let difference = abs(one - another)
      guard difference <= .greatestFiniteMagnitude else { return .infinity }
      largest = max(largest, difference)
    }
    return largest
  }
}

/// An array of floats that somebody else owns, as Core ML's are: of any rank, with gaps perhaps between rows.
public struct Tensor {
  let base: UnsafeMutablePointer<Float>
  let shape: [Int]

  /// In floats, one for each axis.
  let strides: [Int]

  public init(base: UnsafeMutablePointer<Float>, shape: [Int], strides: [Int]) {
    precondition(shape.count == strides.count, "one stride for each axis")
    self.base = base
    self.shape = shape
    self.strides = strides
  }

  /// All elements, the last axis fastest, into an array that is kept where its size fits.
  public func copy(to array: inout [Float]) {
    let count = shape.reduce(1, *)
    if array.count != count { array = Array(repeating: 0, count: count) }
    array.withUnsafeMutableBufferPointer { target in
      var next = 0
      copy(axis: 0, from: base, to: target, next: &next)
    }
  }

  private func copy(axis: Int, from: UnsafeMutablePointer<Float>, to target: UnsafeMutableBufferPointer<Float>, next: inout Int) {
    guard axis < shape.count else {
      target[next] = from.pointee
      next += 1
      return
    }
    for index in 0..<shape[axis] { copy(axis: axis + 1, from: from + index * strides[axis], to: target, next: &next) }
  }
}
