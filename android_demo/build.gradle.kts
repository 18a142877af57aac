// Both plugins here, so that the Android plugin, which brings an older Kotlin, compiles with the catalog's.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}
