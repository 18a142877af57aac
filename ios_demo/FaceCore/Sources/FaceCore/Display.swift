/// From pixels of a photograph to points of the view that shows it: scaled alike in both directions, centred, perhaps mirrored.
public struct ViewMap: Sendable {
  private let width: Double
  private let offsetX, offsetY: Double
  private let mirrored: Bool

  /// Points of the view for one pixel of the photograph.
  public let scale: Double

  /// - Parameters:
  ///   - fill: the photograph covers the view and is cut off where it reaches beyond; otherwise all of it is seen.
  ///   - mirrored: the view shows the photograph as a mirror does, as front cameras are previewed.
  public init(photograph: (width: Int, height: Int), view: (width: Double, height: Double), fill: Bool, mirrored: Bool) {
    let horizontal = view.width / Double(photograph.width)
    let vertical = view.height / Double(photograph.height)
    scale = fill ? max(horizontal, vertical) : min(horizontal, vertical)
    width = Double(photograph.width)
    offsetX = (view.width - width * scale) / 2
    offsetY = (view.height - Double(photograph.height) * scale) / 2
    self.mirrored = mirrored
  }

  public func x(_ x: Float) -> Double { offsetX + (mirrored ? width - Double(x) : Double(x)) * scale }

  public func y(_ y: Float) -> Double { offsetY + Double(y) * scale }
}

/// The mean of the last values.
public struct RollingMean: Sendable {
  private let size: Int
  private var values: [Double] = []
  private var next = 0

  public init(size: Int) { self.size = size }

  /// 0 where there is none.
  public var mean: Double { values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count) }

  public mutating func add(_ value: Double) {
    if values.count < size { values.append(value) } else { values[next] = value }
    next = (next + 1) % size
  }
}
