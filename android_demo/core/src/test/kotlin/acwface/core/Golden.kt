package acwface.core

import java.io.File
import kotlin.math.abs
import kotlin.test.assertEquals
import kotlin.test.fail

/** Vectors of `tests/golden`, whose README says what is in them. */
internal class Golden(private val value: Any?) {
    operator fun get(name: String) = Golden((value as Map<*, *>).let { if (name in it) it[name] else fail("no $name in the vector") })

    val cases get() = this["cases"].list
    val list get() = (value as List<*>).map(::Golden)
    val ints get() = list.map { it.int }
    val intLists get() = list.map { it.ints }
    val doubles get() = list.map { it.double }
    val floats get() = list.map { it.float }.toFloatArray()
    val int get() = (value as JsonNumber).text.toInt()
    val string get() = value as String
    val boolean get() = value as Boolean
    val double get() = if (value is JsonNumber) value.text.toDouble() else string.toDouble() // "NaN", "Infinity"
    val float get() = double.toFloat()
    val fields get() = JsonFields(value, "")
    val plain get() = plain(value)

    fun has(name: String) = name in (value as Map<*, *>)

    private fun plain(value: Any?): Any? =
        when (value) {
            is JsonNumber -> value.text.toDouble()
            is List<*> -> value.map(::plain)
            is Map<*, *> -> value.mapValues { plain(it.value) }
            else -> value
        }

    companion object {
        private val folder = File(System.getProperty("golden") ?: "../../tests/golden")

        fun read(name: String) = Golden(JsonParser(File(folder, name).readText()).parse())

        fun parse(text: String) = Golden(JsonParser(text).parse())
    }
}

internal fun assertClose(expected: FloatArray, actual: FloatArray, what: String) {
    assertEquals(expected.size, actual.size, what)
    for (index in expected.indices) {
        val (wanted, got) = expected[index] to actual[index]
        val same = wanted == got || (wanted.isNaN() && got.isNaN()) || abs(wanted - got) <= 1e-4f * maxOf(1f, abs(wanted))
        if (!same) fail("$what: value $index is $got, expected $wanted")
    }
}
