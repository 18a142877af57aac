import SwiftUI

@main
struct ACWFaceApp: App {
  @State private var session = DetectorSession()

  var body: some Scene {
    WindowGroup {
      if let request = BenchmarkRequest(defaults: .standard) {
        BenchmarkView(session: session, request: request)
      } else {
        ContentView(session: session)
      }
    }
  }
}

/// The three screens; they share one model, so that never two are in memory.
struct ContentView: View {
  let session: DetectorSession

  var body: some View {
    TabView {
      CameraView(session: session).tabItem { Label(Texts.camera, systemImage: "camera") }
      PhotoView(session: session).tabItem { Label(Texts.photograph, systemImage: "photo") }
      BenchmarkView(session: session, request: nil).tabItem { Label(Texts.benchmark, systemImage: "stopwatch") }
    }
    .task { await session.readModels() }
  }
}
