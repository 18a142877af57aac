package acwface.core

/** A file that does not keep the contract; the message says where and how. */
class FormatException(message: String) : Exception(message)

/** A number as it is written: what it becomes depends on who asks. */
internal class JsonNumber(val text: String)

/**
 * Reads one JSON text (RFC 8259) into maps, lists, strings, [JsonNumber], booleans and null. Where a key comes twice, the last one counts.
 *
 * Written here because `core` has no dependencies: Android's own `org.json` is lenient (comments, unquoted strings, numbers for strings) and
 * is not on a desktop JVM, and general libraries take quoted numbers for numbers, which the contract forbids.
 */
internal class JsonParser(private val text: String) {
    private var at = 0
    private var depth = 0

    fun parse(): Any? {
        val value = value()
        if (at != text.length) fail("more after the end")
        return value
    }

    /** One value and the space around it. */
    private fun value(): Any? {
        space()
        val value =
            when (peek()) {
                '{' -> nested { members() }
                '[' -> nested { elements() }
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> number()
            }
        space()
        return value
    }

    private fun <T> nested(read: () -> T): T {
        if (++depth > MAX_DEPTH) fail("nested too deeply")
        at++
        return read().also { depth-- }
    }

    private fun members(): Map<String, Any?> {
        val members = LinkedHashMap<String, Any?>()
        space()
        if (taken('}')) return members
        do {
            space()
            if (peek() != '"') fail("a name expected")
            val name = string()
            space()
            if (!taken(':')) fail("':' expected")
            members[name] = value()
        } while (taken(','))
        if (!taken('}')) fail("',' or '}' expected")
        return members
    }

    private fun elements(): List<Any?> {
        val elements = ArrayList<Any?>()
        space()
        if (taken(']')) return elements
        do elements.add(value()) while (taken(','))
        if (!taken(']')) fail("',' or ']' expected")
        return elements
    }

    private fun string(): String {
        val start = ++at
        while (peek() != '"') {
            if (peek() == '\\') return escaped(start)
            if (text[at] < ' ') fail("a control character in a string")
            at++
        }
        return text.substring(start, at++)
    }

    private fun escaped(start: Int): String {
        val string = StringBuilder().append(text, start, at)
        while (true) {
            val character = peek()
            at++
            when {
                character == '"' -> break
                character == '\\' -> string.append(escape())
                character < ' ' -> fail("a control character in a string")
                else -> string.append(character)
            }
        }
        for (index in string.indices) if (!paired(string, index)) fail("half a surrogate pair")
        return string.toString()
    }

    private fun escape(): Char {
        val character = peek()
        at++
        return when (character) {
            '"', '\\', '/' -> character
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = text.substring(at, minOf(at + 4, text.length))
                if (!HEXADECIMAL.matches(digits)) fail("four hexadecimal digits expected")
                at += 4
                digits.toInt(16).toChar()
            }
            else -> fail("an unknown escape")
        }
    }

    private fun paired(string: CharSequence, index: Int): Boolean {
        val character = string[index]
        return when {
            character.isHighSurrogate() -> string.getOrNull(index + 1)?.isLowSurrogate() == true
            character.isLowSurrogate() -> string.getOrNull(index - 1)?.isHighSurrogate() == true
            else -> true
        }
    }

    private fun number(): JsonNumber {
        val match = NUMBER.find(text, at)
        if (match == null || match.range.first != at) fail("a value expected")
        at += match.value.length
        return JsonNumber(match.value)
    }

    private fun <T> word(word: String, value: T): T {
        if (!text.startsWith(word, at)) fail("a value expected")
        at += word.length
        return value
    }

    private fun space() {
        while (at < text.length && text[at] in " \t\n\r") at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("it ends too early")

    private fun taken(character: Char): Boolean = (at < text.length && text[at] == character).also { if (it) at++ }

    private fun fail(what: String): Nothing = throw FormatException("no JSON: $what at character ${minOf(at, text.length) + 1}")

    private companion object {
        const val MAX_DEPTH = 100
        val HEXADECIMAL = Regex("[0-9a-fA-F]{4}")
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}

/** An object of which every field must be asked for: [close] complains of the others. */
internal class JsonFields(value: Any?, private val path: String) {
    private val fields = value as? Map<*, *> ?: throw FormatException("${path.ifEmpty { "the file" }}: an object expected")
    private val asked = HashSet<String>()

    fun has(name: String) = name in fields

    fun isNull(name: String) = get(name) == null

    fun string(name: String): String = get(name) as? String ?: fail(name, "a string expected")

    fun oneOf(name: String, vararg words: String): String {
        val word = string(name)
        return if (word in words) word else fail(name, "one of ${words.joinToString()} expected, not $word")
    }

    fun long(name: String): Long = whole(get(name), name)

    fun int(name: String): Int = small(get(name), name)

    fun double(name: String): Double = real(get(name), name)

    fun ints(name: String): List<Int> = list(name) { small(it, name) }

    fun doubles(name: String): List<Double> = list(name) { real(it, name) }

    fun intLists(name: String): List<List<Int>> = list(name) { row ->
        (row as? List<*> ?: fail(name, "lists expected")).map { small(it, name) }
    }

    /** Axes of a tensor: null where any length goes. */
    fun shape(name: String): List<Int?> =
        list(name) { axis ->
            if (axis == null) return@list null
            val length = whole(axis, name)
            if (length in 1..MAX_EXTENT) length.toInt() else fail(name, "axes of 1 to $MAX_EXTENT expected")
        }

    fun <T> fields(name: String, read: (JsonFields) -> T): T = read(JsonFields(get(name), path(name)), read)

    fun <T> fieldsList(name: String, read: (JsonFields) -> T): List<T> {
        val values = get(name) as? List<*> ?: fail(name, "a list expected")
        return values.mapIndexed { index, value -> read(JsonFields(value, "${path(name)}[$index]"), read) }
    }

    fun close() {
        val unknown = fields.keys.firstOrNull { it !in asked } ?: return
        fail(unknown as String, "not a field of schema $SCHEMA")
    }

    fun fail(name: String, what: String): Nothing = throw FormatException("${path(name)}: $what")

    private fun <T> read(fields: JsonFields, read: (JsonFields) -> T): T = read(fields).also { fields.close() }

    private fun path(name: String) = if (path.isEmpty()) name else "$path.$name"

    private fun get(name: String): Any? {
        asked.add(name)
        if (name !in fields) fail(name, "missing")
        return fields[name]
    }

    private fun <T> list(name: String, read: (Any?) -> T): List<T> = (get(name) as? List<*> ?: fail(name, "a list expected")).map(read)

    private fun whole(value: Any?, name: String): Long {
        val number = (value as? JsonNumber)?.text ?: fail(name, "a number expected")
        return number.toLongOrNull() ?: fail(name, "a whole number expected, not $number")
    }

    private fun small(value: Any?, name: String): Int {
        val number = whole(value, name)
        return if (number in Int.MIN_VALUE..Int.MAX_VALUE) number.toInt() else fail(name, "$number is too large")
    }

    private fun real(value: Any?, name: String): Double = (value as? JsonNumber)?.text?.toDouble() ?: fail(name, "a number expected")

    private companion object {
        const val MAX_EXTENT = 1 shl 20
    }
}

/** Writes JSON: maps, lists, strings, numbers, booleans and null. */
internal fun writeJson(value: Any?, to: StringBuilder = StringBuilder()): StringBuilder {
    when (value) {
        null, is Boolean, is Int, is Long -> to.append(value)
        is Double -> if (value.isFinite()) to.append(value) else throw FormatException("JSON has no number for $value")
        is String -> writeString(value, to)
        is List<*> -> {
            value.forEachIndexed { index, element -> writeJson(element, to.append(if (index == 0) "[" else ",")) }
            to.append(if (value.isEmpty()) "[]" else "]")
        }
        is Map<*, *> -> {
            value.entries.forEachIndexed { index, (name, member) ->
                writeString(name as String, to.append(if (index == 0) "{" else ","))
                writeJson(member, to.append(":"))
            }
            to.append(if (value.isEmpty()) "{}" else "}")
        }
        else -> throw FormatException("${value::class.simpleName} is nothing that JSON knows")
    }
    return to
}

private fun writeString(value: String, to: StringBuilder) {
    to.append('"')
    for (character in value) {
        when {
            character == '"' || character == '\\' -> to.append('\\').append(character)
            character < ' ' -> to.append("\\u").append(character.code.toString(16).padStart(4, '0'))
            else -> to.append(character)
        }
    }
    to.append('"')
}
