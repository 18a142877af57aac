import FaceCore
import Foundation
import Observation

/// What the screens show of models and of what they find.
@MainActor @Observable
final class DetectorSession {
  let detector = Detector()

  private(set) var entries: [ModelEntry] = []
  private(set) var opened: OpenedModel?

  /// What is wrong with the model, or what is being done with it.
  private(set) var notice: String?
  private(set) var detection: Detection?
  private(set) var times: StageTimes?
  private(set) var framesPerSecond: Double?

  /// Whether the camera is seen: frames that were in work when it went away are not shown.
  var isLive = false

  var chosen: String? {
    didSet {
      UserDefaults.standard.set(chosen, forKey: "model")
      if chosen != oldValue { reopen() }
    }
  }
  var units = ComputeUnits(rawValue: UserDefaults.standard.string(forKey: "computeUnits") ?? "") ?? .all {
    didSet {
      UserDefaults.standard.set(units.rawValue, forKey: "computeUnits")
      if units != oldValue { reopen() }
    }
  }

  private var opening: Task<Void, Never>?
  private var means = Means()

  /// Over the last frames.
  private struct Means {
    var before = RollingMean(size: 30)
    var network = RollingMean(size: 30)
    var after = RollingMean(size: 30)
    var interval = RollingMean(size: 30)
    var last: Double?
    var shown = 0.0
  }

  /// Milliseconds between two changes of the figures: faster ones nobody reads.
  private static let showEvery = 250.0

  /// - Parameter opening: also opens the one that was chosen last.
  func readModels(opening: Bool = true) async {
    guard entries.isEmpty else { return }
    entries = await Task.detached { Models.read() }.value
    if entries.isEmpty { notice = Texts.noModels }
    guard opening else { return }
    let last = UserDefaults.standard.string(forKey: "model")
    chosen = entries.first { $0.name == last }?.name ?? entries.first?.name
  }

  /// The model of a name, or why there is none.
  func model(named name: String) throws -> Model {
    guard let entry = entries.first(where: { $0.name == name }) else { throw ModelError(text: Texts.noModel(name)) }
    return try entry.model.get()
  }

  /// Opens what is chosen once more, also after the benchmark, which closes it.
  func reopen() {
    opening?.cancel()
    forget()
    guard let chosen else { return }
    notice = Texts.opening(chosen)
    opening = Task {
      let result: Result<OpenedModel, any Error>
      do {
        result = .success(try await detector.open(try model(named: chosen), units))
      } catch {
        result = .failure(error)
      }
      if Task.isCancelled { return }  // something else has been chosen since
      switch result {
      case .success(let model): (opened, notice) = (model, model.refusal)
      case .failure(let error): notice = error.localizedDescription
      }
    }
  }

  /// Shows what a frame or a photograph has.
  func show(_ result: Result<Detection, any Error>, isContinuous: Bool) {
    if isContinuous && !isLive { return }
    switch result {
    case .failure(let error):
      forget()
      notice = Texts.failed(chosen ?? "", (error as? FormatError)?.description ?? error.localizedDescription)
    case .success(let found):
      detection = found
      if isContinuous {
        average(found)
      } else {
        (times, framesPerSecond) = (found.times, nil)
      }
    }
  }

  /// No faces, no figures: another picture or another model comes.
  func forget() {
    opened = nil
    clearPicture()
  }

  func clearPicture() {
    (detection, times, framesPerSecond) = (nil, nil, nil)
    means = Means()
  }

  private func average(_ found: Detection) {
    means.before.add(found.times.before)
    means.network.add(found.times.network)
    means.after.add(found.times.after)
    if let last = means.last { means.interval.add(found.at - last) }
    means.last = found.at
    guard found.at - means.shown >= Self.showEvery else { return }
    means.shown = found.at
    times = StageTimes(before: means.before.mean, network: means.network.mean, after: means.after.mean)
    framesPerSecond = means.interval.mean > 0 ? 1000 / means.interval.mean : nil
  }
}
