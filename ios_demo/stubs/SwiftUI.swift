@_exported import CoreTypes
import Observation
import UIKit

@MainActor @preconcurrency public protocol View {
  associatedtype Body: View
  @ViewBuilder var body: Body { get }
}

extension Never: View {
  public var body: Never { fatalError() }
}

/// What every view of the framework itself is here.
public protocol Primitive: View where Body == Never {}
extension Primitive {
  public var body: Never { fatalError() }
}

@resultBuilder public struct ViewBuilder {
  public static func buildBlock() -> EmptyView { fatalError() }
  public static func buildExpression<V: View>(_ view: V) -> V { view }
  public static func buildBlock<V: View>(_ view: V) -> V { view }
  public static func buildBlock<each V: View>(_ view: repeat each V) -> TupleView<(repeat each V)> { fatalError() }
  public static func buildIf<V: View>(_ view: V?) -> V? { view }
  public static func buildEither<T: View, F: View>(first: T) -> ConditionalView<T, F> { fatalError() }
  public static func buildEither<T: View, F: View>(second: F) -> ConditionalView<T, F> { fatalError() }
}

public struct EmptyView: Primitive {}
public struct TupleView<T>: Primitive {}
public struct ConditionalView<T, F>: Primitive {}
public struct Modified<V>: Primitive {}
extension Optional: View where Wrapped: View {
  public var body: Never { fatalError() }
}

@MainActor @preconcurrency public protocol App {
  associatedtype Body: Scene
  @SceneBuilder var body: Body { get }
  init()
}
extension App {
  public static func main() { fatalError() }
}
@MainActor @preconcurrency public protocol Scene {}
@resultBuilder public struct SceneBuilder {
  public static func buildBlock<S: Scene>(_ scene: S) -> S { scene }
}
public struct WindowGroup<Content: View>: Scene {
  public init(@ViewBuilder content: () -> Content) {}
}

@propertyWrapper public struct State<Value> {
  public init(wrappedValue value: Value) {}
  public init(initialValue value: Value) {}
  public var wrappedValue: Value { get { fatalError() } nonmutating set {} }
  public var projectedValue: Binding<Value> { fatalError() }
}
extension State where Value: ExpressibleByNilLiteral {
  public init() {}
}
extension State: Sendable where Value: Sendable {}
@propertyWrapper @dynamicMemberLookup public struct Binding<Value> {
  public init(get: @escaping () -> Value, set: @escaping (Value) -> Void) {}
  public var wrappedValue: Value { get { fatalError() } nonmutating set {} }
  public var projectedValue: Binding<Value> { self }
  public subscript<Subject>(dynamicMember keyPath: WritableKeyPath<Value, Subject>) -> Binding<Subject> { fatalError() }
}
@MainActor @propertyWrapper @dynamicMemberLookup public struct Bindable<Value: AnyObject & Observable> {
  public init(wrappedValue: Value) {}
  public var wrappedValue: Value { fatalError() }
  public var projectedValue: Bindable<Value> { self }
  public subscript<Subject>(dynamicMember keyPath: ReferenceWritableKeyPath<Value, Subject>) -> Binding<Subject> { fatalError() }
}
@propertyWrapper public struct Environment<Value> {
  public init(_ keyPath: KeyPath<EnvironmentValues, Value>) {}
  public var wrappedValue: Value { fatalError() }
}
public struct EnvironmentValues {
  public var verticalSizeClass: UserInterfaceSizeClass? { fatalError() }
  public var openURL: OpenURLAction { fatalError() }
}
public enum UserInterfaceSizeClass { case compact, regular }
@MainActor @preconcurrency public struct OpenURLAction {
  public func callAsFunction(_ url: URL) {}
}

public protocol Layout {}
public struct HStackLayout: Layout { public init() {} }
public struct VStackLayout: Layout { public init() {} }
@MainActor @preconcurrency public struct AnyLayout {
  public init<L: Layout>(_ layout: L) {}
  public func callAsFunction<V: View>(@ViewBuilder _ content: () -> V) -> some View { EmptyView() }
}

public struct HorizontalAlignment: Sendable { public static let leading = Self(), center = Self() }
public struct Alignment: Sendable { public static let center = Self(), leading = Self() }
public enum TextAlignment { case leading, center }
public struct UnitPoint: Sendable { public static let bottomLeading = Self(), center = Self() }

public struct VStack<Content: View>: Primitive {
  public init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) {}
}
public struct ZStack<Content: View>: Primitive {
  public init(alignment: Alignment = .center, @ViewBuilder content: () -> Content) {}
}
public struct ScrollView<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) {}
}
public struct TabView<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) {}
}
public struct ForEach<Data, Content: View>: Primitive {
  public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content)
  where Data: RandomAccessCollection, Data.Element: Identifiable {}
}
public struct Label<Title, Icon>: Primitive {}
extension Label where Title == Text, Icon == Image {
  public init<S: StringProtocol>(_ title: S, systemImage name: String) {}
}
public struct Button<Label>: Primitive {}
extension Button where Label == Text {
  public init<S: StringProtocol>(_ title: S, action: @escaping @MainActor () -> Void) {}
}
extension Button where Label == SwiftUI.Label<Text, Image> {
  public init<S: StringProtocol>(_ title: S, systemImage: String, action: @escaping @MainActor () -> Void) {}
}
public struct Picker<Selection: Hashable, Content: View>: Primitive {
  public init<S: StringProtocol>(_ title: S, selection: Binding<Selection>, @ViewBuilder content: () -> Content) {}
}
public struct ShareLink: Primitive {
  public init<S: StringProtocol>(_ title: S, item: URL) {}
}

public struct Font: Sendable {
  public static let callout = Font(), footnote = Font(), caption = Font()
  public func monospacedDigit() -> Font { self }
  public func monospaced() -> Font { self }
}
public struct Color: Primitive, Sendable { public static let yellow = Color(), cyan = Color() }
public struct Text: Primitive, Sendable {
  public nonisolated init<S: StringProtocol>(_ content: S) {}
  public nonisolated func font(_ font: Font?) -> Text { self }
  public nonisolated func foregroundColor(_ color: Color?) -> Text { self }
}
public struct Image: Primitive {
  public init(uiImage: UIImage) {}
  public func resizable() -> Image { self }
}

public struct Path { 
  public init(_ rect: CGRect) {}
  public init(ellipseIn rect: CGRect) {}
}
public struct GraphicsContext {
  public struct Shading: Sendable { public static func color(_ color: Color) -> Shading { fatalError() } }
  public func stroke(_ path: Path, with shading: Shading, lineWidth: CGFloat = 1) {}
  public func fill(_ path: Path, with shading: Shading) {}
  public func draw(_ text: Text, at point: CGPoint, anchor: UnitPoint = .center) {}
}
public struct Canvas: Primitive {
  public init(renderer: @escaping (inout GraphicsContext, CGSize) -> Void) {}
}

public struct EdgeInsets {}
public struct TextSelectability { public static let enabled = Self() }
extension View {
  public func task(_ action: @escaping @MainActor @Sendable () async -> Void) -> some View { Modified<Self>() }
  public func task<T: Equatable>(id value: T, _ action: @escaping @MainActor @Sendable () async -> Void) -> some View { Modified<Self>() }
  public func onDisappear(perform action: (() -> Void)? = nil) -> some View { Modified<Self>() }
  public func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> some View { Modified<Self>() }
  public func tag<V: Hashable>(_ tag: V) -> some View { Modified<Self>() }
  public func font(_ font: Font?) -> some View { Modified<Self>() }
  public func padding() -> some View { Modified<Self>() }
  public func clipped() -> some View { Modified<Self>() }
  public func disabled(_ disabled: Bool) -> some View { Modified<Self>() }
  public func scaledToFit() -> some View { Modified<Self>() }
  public func multilineTextAlignment(_ alignment: TextAlignment) -> some View { Modified<Self>() }
  public func textSelection(_ selectability: TextSelectability) -> some View { Modified<Self>() }
  public func frame(maxWidth: CGFloat? = nil, maxHeight: CGFloat? = nil, alignment: Alignment = .center) -> some View { Modified<Self>() }
  public func allowsHitTesting(_ enabled: Bool) -> some View { Modified<Self>() }
  public func accessibilityElement() -> some View { Modified<Self>() }
  public func accessibilityLabel<S: StringProtocol>(_ label: S) -> some View { Modified<Self>() }
}

@MainActor @preconcurrency public protocol UIViewRepresentable: Primitive {
  associatedtype UIViewType: UIView
  typealias Context = UIViewRepresentableContext<Self>
  func makeUIView(context: Context) -> UIViewType
  func updateUIView(_ uiView: UIViewType, context: Context)
}
@MainActor @preconcurrency public struct UIViewRepresentableContext<Representable> {}
