import CoreML
import CryptoKit
import FaceCore
import Foundation

/// An artifact in the app; `name` is its folder's.
struct Model: Sendable {
  let name: String
  let folder: URL
  let manifest: Manifest
}

/// A folder in the app: a model, or why it is none; shown in the list, so that nobody searches for it.
struct ModelEntry: Sendable, Identifiable {
  let name: String
  let model: Result<Model, ModelError>

  var id: String { name }
}

/// Why a model cannot be used, in words for people.
struct ModelError: Error, LocalizedError {
  let text: String

  var errorDescription: String? { text }
}

/// What `make ios-assets` has put into the app.
enum Models {
  /// Reads every `detector.json`, in the order of names.
  static func read() -> [ModelEntry] {
    guard let folder = Bundle.main.resourceURL?.appendingPathComponent("Models") else { return [] }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    return names.filter { !$0.hasPrefix(".") }.sorted().map { name in
      let path = folder.appendingPathComponent(name)
      do {
        let text = try String(contentsOf: path.appendingPathComponent("detector.json"), encoding: .utf8)
        return ModelEntry(name: name, model: .success(Model(name: name, folder: path, manifest: try Manifest(json: text))))
      } catch {
        let reason = (error as? FormatError)?.description ?? error.localizedDescription
        return ModelEntry(name: name, model: .failure(ModelError(text: Texts.broken(name, reason))))
      }
    }
  }

  /// Whether it is the folder that was exported, and fits. Reads all of it.
  ///
  /// - Throws: ``ModelError``.
  static func check(_ model: Model) throws {
    do {
      try checkCompatibility(model.manifest, system: systemVersion)
    } catch let problem as Incompatibility {
      throw ModelError(text: Texts.incompatible(model.name, problem))
    } catch let error as FormatError {
      throw ModelError(text: Texts.broken(model.name, error.description))
    }
    guard let digest = try? digest(of: package(model)), digest == model.manifest.model.sha256 else {
      throw ModelError(text: Texts.damaged(model.name))
    }
  }

  /// What Core ML loads: compiled on the phone, once for each version of iOS, because Xcode compiles no models in folders that it only copies.
  static func compiled(_ model: Model) async throws -> URL {
    let folder = try FileManager.default
      .url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
      .appendingPathComponent("compiled")
    let target = folder.appendingPathComponent("\(model.manifest.model.sha256)-\(systemVersion).mlmodelc")
    if FileManager.default.fileExists(atPath: target.path) { return target }
    let fresh = try await MLModel.compileModel(at: package(model))
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try? FileManager.default.removeItem(at: target)
    try FileManager.default.moveItem(at: fresh, to: target)
    return target
  }

  /// Of iOS, numbers between dots.
  static var systemVersion: String {
    let version = ProcessInfo.processInfo.operatingSystemVersion
    return "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
  }

  private static func package(_ model: Model) -> URL { model.folder.appendingPathComponent(model.manifest.model.name) }

  private static func digest(of folder: URL) throws -> String {
    let paths = try FileManager.default.subpathsOfDirectory(atPath: folder.path)
    let files = try paths.compactMap { path -> (path: String, sha256: String)? in
      let file = folder.appendingPathComponent(path)
      guard try file.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile == true else { return nil }
      return (path, hexadecimal(SHA256.hash(data: try Data(contentsOf: file))))
    }
    return hexadecimal(SHA256.hash(data: Data(listing(of: files).utf8)))
  }

  private static func hexadecimal(_ digest: SHA256.Digest) -> String {
    digest.map { (($0 < 16) ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
