/// Where a photograph goes in an input of fixed size: the largest size that fits with its aspect ratio kept, in the upper left corner.
public struct Letterbox: Sendable, Equatable {
  /// Of the resized photograph, pixels.
  public let height, width: Int

  /// Pixels of the input for one pixel of the photograph. The photograph's origin is the input's origin.
  public let scaleX, scaleY: Double

  /// - Precondition: no side is empty.
  public init(photographHeight: Int, photographWidth: Int, inputHeight: Int, inputWidth: Int) {
    precondition(photographHeight > 0 && photographWidth > 0 && inputHeight > 0 && inputWidth > 0, "an empty photograph or input")
    let ratio = min(Double(inputHeight) / Double(photographHeight), Double(inputWidth) / Double(photographWidth))
    // Halves go to the even number, as in Python.
    height = max(1, Int((Double(photographHeight) * ratio).rounded(.toNearestOrEven)))
    width = max(1, Int((Double(photographWidth) * ratio).rounded(.toNearestOrEven)))
    scaleX = Double(width) / Double(photographWidth)
    scaleY = Double(height) / Double(photographHeight)
  }
}
