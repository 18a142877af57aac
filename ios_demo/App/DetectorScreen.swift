import FaceCore
import SwiftUI

/// A picture with faces drawn over it, and the panel: below it, or beside it where the screen is low.
struct DetectorScreen<Content: View, Buttons: View>: View {
  let session: DetectorSession
  let fill: Bool
  let mirrored: Bool
  @ViewBuilder let picture: Content
  @ViewBuilder let buttons: Buttons
  @Environment(\.verticalSizeClass) private var verticalSizeClass

  var body: some View {
    let layout = verticalSizeClass == .compact ? AnyLayout(HStackLayout()) : AnyLayout(VStackLayout())
    layout {
      ZStack {
        picture
        FaceOverlay(detection: session.detection, fill: fill, mirrored: mirrored)
      }
      .clipped()
      ScrollView {
        VStack(alignment: .leading, spacing: 8) {
          ModelPanel(session: session)
          buttons
        }
        .padding()
      }
      .frame(maxWidth: 480, maxHeight: 280)
    }
  }
}

/// Which model, on what, where its operations are and how long it takes.
struct ModelPanel: View {
  @Bindable var session: DetectorSession

  var body: some View {
    if let notice = session.notice {
      Text(notice).font(.callout)
    }
    Picker(Texts.model, selection: $session.chosen) {
      ForEach(session.entries) { Text($0.name).tag(Optional($0.name)) }
    }
    Picker(Texts.runsOn, selection: $session.units) {
      ForEach(ComputeUnits.allCases) { Text(Texts.units($0)).tag($0) }
    }
    if let opened = session.opened {
      Text(opened.placement.map(Texts.placement) ?? Texts.placementUnknown).font(.footnote)
    }
    if let times = session.times {
      Text(Texts.times(times)).font(.footnote.monospacedDigit())
    }
    if let rate = session.framesPerSecond {
      Text(Texts.rate(rate)).font(.footnote.monospacedDigit())
    }
  }
}

/// Draws boxes, scores and, where there are any, landmarks over the picture that the view below shows.
struct FaceOverlay: View {
  let detection: Detection?
  let fill: Bool
  let mirrored: Bool

  var body: some View {
    Canvas { context, size in
      guard let detection, detection.width > 0, detection.height > 0 else { return }
      let map = ViewMap(
        photograph: (detection.width, detection.height), view: (size.width, size.height), fill: fill, mirrored: mirrored)
      for face in detection.faces { draw(face, map, in: context) }
    }
    .allowsHitTesting(false)
    .accessibilityElement()
    .accessibilityLabel(Texts.faces(detection?.faces.count ?? 0))
  }

  private func draw(_ face: Face, _ map: ViewMap, in context: GraphicsContext) {
    let (left, right) = (map.x(face.box.left), map.x(face.box.right))  // a mirror changes sides
    let (top, bottom) = (map.y(face.box.top), map.y(face.box.bottom))
    let box = CGRect(x: min(left, right), y: top, width: abs(right - left), height: bottom - top)
    context.stroke(Path(box), with: .color(.yellow), lineWidth: 2)
    for point in face.landmarks {
      let circle = CGRect(x: map.x(point.x) - 2.5, y: map.y(point.y) - 2.5, width: 5, height: 5)
      context.fill(Path(ellipseIn: circle), with: .color(.cyan))
    }
    let score = Text(Texts.percent(Int((100 * face.score).rounded()))).font(.caption).foregroundColor(.yellow)
    context.draw(score, at: CGPoint(x: box.minX, y: box.minY), anchor: .bottomLeading)
  }
}
