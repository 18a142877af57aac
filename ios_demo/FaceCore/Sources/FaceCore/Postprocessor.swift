import Foundation

/// In pixels of the photograph.
public struct Point: Sendable, Equatable {
  public let x, y: Float
}

/// A rectangle in pixels of the photograph; it may reach beyond its border.
public struct Box: Sendable, Equatable {
  public let left, top, right, bottom: Float

  var area: Float { (right - left) * (bottom - top) }
}

/// A face that was found.
public struct Face: Sendable, Equatable {
  /// 0 to 1.
  public let score: Float
  public let box: Box

  /// Left eye, right eye, nose, left and right corner of the mouth; left as seen in the image. Empty of a network that detects only.
  public let landmarks: [Point]
}

/// From the network's outputs to faces: threshold, decode, suppress, as `model/postprocess.py` does.
public struct Postprocessor: Sendable {
  private let anchors: [Anchor]
  private let centreVariance, sizeVariance: Float
  private let thresholds: Thresholds

  /// A wild network may ask for e^1000; a box of e^10 anchor sides is already off every photograph.
  private static let maxLogGrowth: Float = 10

  /// - Parameters:
  ///   - anchors: of ``makeAnchors(height:width:strides:minSizes:)``.
  ///   - variances: of the box coding: for centres and for log sizes.
  public init(anchors: [Anchor], variances: [Double], thresholds: Thresholds) {
    self.anchors = anchors
    centreVariance = Float(variances[0])
    sizeVariance = Float(variances[1])
    self.thresholds = thresholds
  }

  /// Faces of one photograph, best first.
  ///
  /// - Parameters:
  ///   - outputs: a row for each anchor.
  ///   - scaleX: pixels of the input for one pixel of the photograph; faces are divided by it.
  /// - Throws: ``FormatError``: outputs of another input size.
  public func run(_ outputs: Outputs, scaleX: Double, scaleY: Double) throws -> [Face] {
    guard outputs.isComplete(for: anchors.count) else {
      throw FormatError("outputs of another input size: \(outputs.scores.count) scores for \(anchors.count) anchors")
    }
    let scale = (x: Float(scaleX), y: Float(scaleY))
    let candidates = ranked(outputs.scores, above: Float(thresholds.score)).prefix(max(0, thresholds.topK))
    let boxes = candidates.map { decodeBox(outputs.boxDeltas, $0, scale) }
    return suppress(boxes, iou: thresholds.nmsIou, keep: thresholds.keep).map { place in
      let anchor = candidates[place]
      return Face(score: outputs.scores[anchor], box: boxes[place], landmarks: decodeLandmarks(outputs.landmarkDeltas, anchor, scale))
    }
  }

  /// SSD box coding (Liu et al. 2016, section 2.2), inverted.
  private func decodeBox(_ deltas: [Float], _ index: Int, _ scale: (x: Float, y: Float)) -> Box {
    let anchor = anchors[index]
    let centre = decodeCentre(deltas, 4 * index, anchor)
    let halfWidth = anchor.width * growth(deltas[4 * index + 2]) / 2
    let halfHeight = anchor.height * growth(deltas[4 * index + 3]) / 2
    return Box(
      left: (centre.x - halfWidth) / scale.x, top: (centre.y - halfHeight) / scale.y, right: (centre.x + halfWidth) / scale.x,
      bottom: (centre.y + halfHeight) / scale.y)
  }

  private func growth(_ delta: Float) -> Float { Float(exp(Double(min(delta * sizeVariance, Self.maxLogGrowth)))) }

  /// Each coded like a box's centre; none of none.
  private func decodeLandmarks(_ deltas: [Float], _ index: Int, _ scale: (x: Float, y: Float)) -> [Point] {
    (0..<(deltas.isEmpty ? 0 : 5)).map { point in
      let centre = decodeCentre(deltas, 10 * index + 2 * point, anchors[index])
      return Point(x: centre.x / scale.x, y: centre.y / scale.y)
    }
  }

  private func decodeCentre(_ deltas: [Float], _ at: Int, _ anchor: Anchor) -> Point {
    Point(x: anchor.x + deltas[at] * centreVariance * anchor.width, y: anchor.y + deltas[at + 1] * centreVariance * anchor.height)
  }
}

/// Indices of the scores above a threshold, highest first, of equal ones the first first. What is not a number is never above.
func ranked(_ scores: [Float], above threshold: Float) -> [Int] {
  scores.indices.filter { scores[$0] > threshold }
    .sorted { scores[$0] == scores[$1] ? $0 < $1 : scores[$0] > scores[$1] }
}

/// Greedy non-maximum suppression of boxes that come best first, as torchvision's `nms` does it on the CPU.
///
/// - Returns: which are left, best first.
func suppress(_ boxes: [Box], iou: Double, keep: Int) -> [Int] {
  var suppressed = Array(repeating: false, count: boxes.count)
  var kept: [Int] = []
  for first in boxes.indices where !suppressed[first] {
    if kept.count >= keep { break }
    kept.append(first)
    for second in boxes.indices.dropFirst(first + 1) where !suppressed[second] {
      // IoU is a float, the threshold a double; torchvision compares them so.
      suppressed[second] = Double(overlap(boxes[first], boxes[second])) > iou
    }
  }
  return kept
}

/// IoU. Comparisons are written out so that what is not a number goes where it goes in C++.
private func overlap(_ first: Box, _ second: Box) -> Float {
  let left = first.left < second.left ? second.left : first.left
  let top = first.top < second.top ? second.top : first.top
  let right = second.right < first.right ? second.right : first.right
  let bottom = second.bottom < first.bottom ? second.bottom : first.bottom
  let width = 0 < right - left ? right - left : 0
  let height = 0 < bottom - top ? bottom - top : 0
  let shared = width * height
  return shared / (first.area + second.area - shared)
}
