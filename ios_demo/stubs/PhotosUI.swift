import SwiftUI

public struct PHPickerFilter: Sendable { public static let images = Self() }
public struct PhotosPickerItem: Equatable, Hashable, Sendable {
  public func loadTransferable<T>(type: T.Type) async throws -> T? { fatalError() }
}
public struct PhotosPicker<Label>: Primitive {}
extension PhotosPicker where Label == Text {
  public init<S: StringProtocol>(_ title: S, selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil) {}
}
