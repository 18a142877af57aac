// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.annotation;

public @interface RequiresApi {
    int value();
}
