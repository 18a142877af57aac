import PhotosUI
import SwiftUI
import UIKit

/// Faces in a photograph from the library.
struct PhotoView: View {
  let session: DetectorSession
  @State private var selection: PhotosPickerItem?
  @State private var photograph: Photograph?
  @State private var image: UIImage?
  @State private var problem: String?

  var body: some View {
    DetectorScreen(session: session, fill: false, mirrored: false) {
      if let image {
        Image(uiImage: image).resizable().scaledToFit().accessibilityLabel(Texts.photograph)
      } else {
        Text(problem ?? Texts.choosePhotograph).frame(maxWidth: .infinity, maxHeight: .infinity)
      }
    } buttons: {
      PhotosPicker(Texts.choosePhotograph, selection: $selection, matching: .images)
    }
    .task(id: selection) { await load() }
    .task(id: session.opened?.units) { await detect() }
    .onDisappear { session.clearPicture() }
  }

  private func load() async {
    guard let selection else { return }
    do {
      guard let data = try await selection.loadTransferable(type: Data.self) else { throw ModelError(text: Texts.photographFailed) }
      photograph = try await Task.detached { try Photograph(data) }.value
      (image, problem) = (UIImage(data: data), nil)
      await detect()
    } catch {
      (photograph, image, problem) = (nil, nil, Texts.photographFailed)
    }
  }

  private func detect() async {
    session.clearPicture()
    guard let photograph else { return }
    do {
      guard let detection = try await session.detector.detect(photograph) else { return }
      session.show(.success(detection), isContinuous: false)
    } catch {
      session.show(.failure(error), isContinuous: false)
    }
  }
}
